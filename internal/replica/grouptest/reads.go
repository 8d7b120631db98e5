package grouptest

var readRules []rule
