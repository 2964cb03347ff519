"""From verdicts to alerts: what fires, since when, and who is to hear of it.

In: monitor results, and failures of the pipeline. Out: alerts and their events in the state
database. ``transitions`` is the pure machine, ``apply_results`` feeds it.
"""
