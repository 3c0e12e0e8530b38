"""The process that writes records to MLflow, `process.py`, and all that runs in it: nothing else imports mlflow."""
