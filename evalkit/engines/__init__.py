"""Where a model answers: in this process, in local processes, in a Ray cluster, or in ranks.

All are an `Engine` (`base`) to the runner. `scheduler` decides who is asked what and takes back what a lost
worker had; `base.InProcess`, `processes`, `ray_engine` and `ranks` carry the requests and the answers.
"""
