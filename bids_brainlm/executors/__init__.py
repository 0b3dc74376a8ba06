"""Where work runs: in this process, on a Dask cluster, in Slurm jobs; never what comes out."""
