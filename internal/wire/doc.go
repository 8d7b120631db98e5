// Package wire reads and writes the fields of records and messages: numbers, byte strings, lists of them.
//
// # Usage
//
//	b := wire.AppendBytes(binary.AppendUvarint(nil, version), name)
//	…
//	r := wire.NewReader(b)
//	version, name := r.Uvarint(), r.Bytes(maxName)
//	if err := r.End(); err != nil { … }
//
// # Guarantees
//
// A reader takes bytes from outside: it does not panic, whatever they are, and allocates nothing. After the first
// field that is none everything that follows is zero, and End has an error; so that a decoder checks once.
//
// # Limits
//
// What is read shares its memory with what was handed in.
package wire
