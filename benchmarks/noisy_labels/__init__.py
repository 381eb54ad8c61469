"""Train small networks on wrong labels and measure what each loss lets them memorise.

The layers, each importing only those before it:

    data, noise              what is trained on: examples and wrong labels
    augment, networks        from stored inputs to logits
    baselines, losses        losses in plain PyTorch; all losses by name
    measures                 accuracies and fits, in percent
    training                 one run: a recipe, a network, a data set, noisy labels -> a history
    runs                     many runs side by side, one progress bar
    table, figures, timing   what is shown
    experiment, search       scikit-learn's digits, and how learning rates are chosen
    demo                     the command of make demo
"""
