package grouptest

var groupRules []rule
var slow []rule
