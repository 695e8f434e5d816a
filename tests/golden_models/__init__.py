"""How each model of jmer reads the files of its published code (`golden.Adapter`)."""
