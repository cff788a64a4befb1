"""DeepCluster (Caron, Bojanowski, Joulin & Douze 2018): images -> a run directory."""
