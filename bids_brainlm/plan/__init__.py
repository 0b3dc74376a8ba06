"""From settings and files to jobs: what is to be made, from what, and what is skipped."""
