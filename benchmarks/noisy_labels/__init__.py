"""Train small networks on wrong labels and measure what each loss lets them memorise.

The layers, each importing only those before it:

    noise, data, networks   what is trained on what
    measures                accuracies and fits, in percent
    training                one run: a recipe, a network, a data set, noisy labels -> a history
    runs                    many runs side by side, one progress bar
    table, figures, timing  what is shown
    experiment, search      scikit-learn's digits, and how their learning rates are chosen
    demo                    the command
"""
