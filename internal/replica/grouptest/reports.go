package grouptest

var reportRules []rule
