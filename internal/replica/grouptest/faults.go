package grouptest

var faultRules []rule
