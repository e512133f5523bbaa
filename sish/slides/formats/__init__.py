"""One module for each kind of file that holds a slide; ``opening`` chooses among them."""
