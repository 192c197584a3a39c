"""The paper's ablation (section 4.4) at tiny size: rows, runs, statistics, tables."""
