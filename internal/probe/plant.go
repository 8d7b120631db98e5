package probe

// Plant makes one mistake, and nothing else of what a probe can do, until the function that is returned is called: for tests.
func Plant(bug string) (remove func()) { return Install(planted(bug)) }

type planted string

func (planted) Sometimes(string, bool) {}
func (planted) Buggify(string) bool    { return false }
func (p planted) Bug(name string) bool { return name == string(p) }
func (planted) Observe(any)            {}
