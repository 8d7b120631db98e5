//go:build race

package kv_test

const racing = true
