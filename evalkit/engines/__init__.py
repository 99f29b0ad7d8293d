"""Where a model runs when it does not run in this process alone: worker processes, a Ray cluster, ranks.

A pool (`base.Pool`) is handed a whole plan and keeps its workers fed; the process that holds the run folder
writes every answer. Ranks (`ranks`) are equal processes that were started together, each with its own file.
"""
