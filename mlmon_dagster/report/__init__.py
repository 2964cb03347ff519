"""What people look at: metrics over longer windows, performance traces, the health report."""
