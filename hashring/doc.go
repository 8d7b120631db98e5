// Package hashring is consistent hashing.
package hashring
