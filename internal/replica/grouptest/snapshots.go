package grouptest

var snapshotRules []rule
