package grouptest

var corruptionRules []rule
