"""A Django project: a management command publishes, a view resumes."""
