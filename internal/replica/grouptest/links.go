package grouptest

var linkRules []rule
