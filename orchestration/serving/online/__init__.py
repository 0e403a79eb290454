"""Lists one request at a time: the present champion held open (`live`), and another one taken over when the champion log says so (`follow`)."""
