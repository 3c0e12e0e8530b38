"""The process that writes records to MLflow (`process.py`) and all that runs in it. Nothing else imports mlflow."""
