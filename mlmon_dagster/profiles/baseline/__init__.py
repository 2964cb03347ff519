"""What windows are compared with: fitted once, as rows for estimates, and rolling with time.

In: profiles and rows of the baseline. Out: baselines that the store keeps.
"""
