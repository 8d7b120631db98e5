package grouptest

var identityRules []rule
