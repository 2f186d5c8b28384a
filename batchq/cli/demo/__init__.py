"""The newsletter campaign: recipients, an SMTP server, workers, a kill, a report."""
