"""What runs on the user's own hosts: it moves files to S3 behind the application's back."""
