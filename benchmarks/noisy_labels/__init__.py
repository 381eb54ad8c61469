"""Train small networks on wrong labels and measure what each loss lets them memorise.

The layers, each importing only those before it:

    names                    what the command line knows by name; imports nothing
    annotators               several labels for an example
    data, label_rows, label_files, file_noise, noise
                             what is trained on: examples and wrong labels
    augment, networks        from stored inputs to logits
    baselines, losses        losses in plain PyTorch; all losses by name
    measures, suspects       accuracies and fits; training labels by the probability that a network gives them
    training                 one run: a recipe, a network, a data set, noisy labels -> a history
    task, store, job         one run by name, in a folder of its own, from which it goes on
    runs, archive            many runs side by side; many runs in one file
    table, figures, timing   what is shown
    search, sweep            how learning rates are chosen; several losses on one task
    report, share            finished runs as tables and pictures; what the loss costs in a step
    experiment, demo         the four losses on scikit-learn's digits that make demo shows
    judging, finding         finished runs as judges of labels; what `suspects` does
    options, rules           the command line, with __main__; which option has an effect when
"""
