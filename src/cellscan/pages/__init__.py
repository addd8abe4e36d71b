"""HTML pages of results, each one file: markup, pictures, parts of a page, and the page itself."""
