"""Find wrong labels by imae_ext and by cleanlab, side by side, where it is known which labels are wrong.

The layers, each importing only those before it:

    tasks                features, labels made wrong, and the truth
    embeddings           features of images and of texts
    methods              who finds them, and how
    results              what was found, in a CSV file, and the tables made of it
    sheet                a picture of the first hundred suspects, with given and predicted label
"""
