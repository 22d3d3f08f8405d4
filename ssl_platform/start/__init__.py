"""From a folder of images to a training that fits them: look, measure, choose, write, go on."""
