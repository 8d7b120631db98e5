// Package threephase is the models of three-phase commit.
package threephase
