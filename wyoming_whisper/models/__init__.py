"""A model's name -> its files, whole: local, cached, downloaded, converted."""
