"""From alerts to what is said of them: incidents, sentences, and rows of the outbox.

In: alerts, and what each place was told last. Out: frozen messages under idempotency keys.
"""
