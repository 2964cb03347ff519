"""Sources that are polled: tables and topics, a module each, and what is common to them."""
