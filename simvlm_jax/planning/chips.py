"""Published figures of the chips that a plan knows, per chip, with where they stand.

Sources:
  [v3] to [v6e]  cloud.google.com/tpu/docs/v3, v4, v5e, v5p, v6e (system architecture), 2026-11
  [book]         jax-ml.github.io/scaling-book/tpus, table of interconnect figures: one-way
                 bandwidth of a link, which is what a ring reaches
  [h100]         NVIDIA H100 data sheet (SXM); NVLink 4: 18 links of 25 GB/s each way
Usable memory is what the compiler itself names when a program is too large for it.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as topologies spell it.
      devices: JAX devices on a chip.
      peak_flops: bfloat16 operations per second.
      hbm_bytes: memory that programs can use, of all devices of the chip.
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second one way of one link to a neighbour (TPU), or of all links
        of a GPU together.
      dcn_bandwidth: bytes per second of each chip's share of the network between slices (TPU) or
        hosts (GPU).
      clock: cycles per second that the peak implies.
    """

    name: str
    devices: int
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link_bandwidth: float
    dcn_bandwidth: float
    clock: float


CHIPS = {
    chip.name: chip
    for chip in (
        # [v3] 123 TFLOP/s, 32 GiB, 900 GB/s; 4 units of 128 x 128; links as [book]. What a chip has
        # of the network between slices is not published: taken as v5e's.
        Chip("v3", 2, 123e12, 2 * 15.48 * GIB, 900e9, 100e9, 3.125e9, 0.94e9),
        # [v4] 275 TFLOP/s, 32 GiB, 1,200 GB/s; 8 units; 4 chips on a host of 200 Gbit/s
        Chip("v4", 1, 275e12, 30.75 * GIB, 1200e9, 45e9, 6.25e9, 1.05e9),
        # [v5e] 197 TFLOP/s, 16 GB, 819 GB/s; 4 units; 6.4 Tbit/s for 256 chips
        Chip("v5e", 1, 197e12, 15.75 * GIB, 819e9, 45e9, 3.125e9, 1.5e9),
        # [v5p] 459 TFLOP/s, 95 GB, 2,765 GB/s; 8 units; 50 Gbit/s a chip
        Chip("v5p", 1, 459e12, 95.74 * GIB, 2765e9, 90e9, 6.25e9, 1.75e9),
        # [v6e] 918 TFLOP/s, 32 GB, 1,638 GB/s; its units do not tell the clock: at this one a large
        # product reaches 70 % of the peak by the compiler (88 to 97 % on the others), at twice 140
        Chip("v6e", 1, 918e12, 31.25 * GIB, 1638e9, 90e9, 12.5e9, 1.75e9),
        # [h100] 989 TFLOP/s without sparsity, 80 GB, 3,350 GB/s; one 400 Gbit/s adapter a GPU
        Chip("h100", 1, 989e12, 80e9, 3350e9, 450e9, 50e9, 1.755e9),
    )
}
