"""How the bundled model `home-en` is made, from sentences to weights; see README.md."""
