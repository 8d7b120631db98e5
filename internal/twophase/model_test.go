package twophase

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// settable returns a value that can be set, though its field may not be exported.
func settable(v reflect.Value) reflect.Value {
	if v.CanSet() || !v.CanAddr() {
		return v
	}
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// filler gives everything a value that is not zero, numbers and strings different ones.
type filler struct{ n uint64 }

func (f *filler) fill(v reflect.Value) {
	v = settable(v)
	f.n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(100 + f.n))
	case reflect.Uint64:
		v.SetUint(100 + f.n)
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.String:
		v.SetString(fmt.Sprint("s", f.n))
	case reflect.Interface:
		v.Set(reflect.ValueOf(errors.New("failed")))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 4))
		for i := range 2 {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, x := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(k)
			f.fill(x)
			v.SetMapIndex(k, x)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	default:
		panic(v.Kind())
	}
}

// full is a core of which every field says something.
func full() *Core {
	c := new(Core)
	new(filler).fill(reflect.ValueOf(c).Elem())
	c.durable = 1
	c.cfg.PeerTicks = 1 << 20
	clear(c.byID)
	for _, t := range c.transactions {
		t.phase = phasePreparing
		c.byID[t.id] = t
	}
	clear(c.byKey)
	for _, e := range c.entries {
		e.state = statePrepared
		c.byKey[e.key] = e
	}
	return c
}

// aliases finds what two values share that may change.
func aliases(path string, a, b reflect.Value, found *[]string) {
	switch a.Type() {
	case reflect.TypeFor[[]Branch](), reflect.TypeFor[[]byte](), reflect.TypeFor[map[string]bool]():
		return // these are never changed once they are made
	}
	shared := func() {
		if a.Pointer() == b.Pointer() {
			*found = append(*found, path)
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		if shared(); !a.IsNil() {
			aliases(path, a.Elem(), b.Elem(), found)
		}
	case reflect.Slice:
		shared()
		for i := range a.Len() {
			aliases(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i), found)
		}
	case reflect.Map:
		shared()
		for _, k := range a.MapKeys() {
			aliases(path+"[]", a.MapIndex(k), b.MapIndex(k), found)
		}
	case reflect.Struct:
		for i := range a.NumField() {
			aliases(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i), found)
		}
	}
}

// A copy is the same, and shares nothing that changes, whatever fields there are.
func TestCloneSharesNothing(t *testing.T) {
	c := full()
	d := c.Clone()
	require.True(t, reflect.DeepEqual(c, d))
	var found []string
	aliases("", reflect.ValueOf(c).Elem(), reflect.ValueOf(d).Elem(), &found)
	require.Empty(t, found)
	require.Equal(t, c.Fingerprint(nil), d.Fingerprint(nil))
	for i, x := range d.transactions {
		require.Same(t, d.byID[x.id], d.transactions[i])
	}
	for i, e := range d.entries {
		require.Same(t, d.byKey[e.key], d.entries[i])
	}
}

// leaves calls fn for all numbers, strings and flags below a value, with a function that changes it.
func leaves(path string, v reflect.Value, fn func(path string, change func())) {
	v = settable(v)
	switch v.Kind() {
	case reflect.Bool:
		fn(path, func() { v.SetBool(!v.Bool()) })
	case reflect.Int, reflect.Int64:
		fn(path, func() { v.SetInt(v.Int() + 1) })
	case reflect.Uint64, reflect.Uint8:
		fn(path, func() { v.SetUint(v.Uint() + 1) })
	case reflect.String:
		fn(path, func() { v.SetString(v.String() + "x") })
	case reflect.Interface:
		fn(path, func() { v.Set(reflect.ValueOf(errors.New("failed otherwise"))) })
	case reflect.Pointer:
		leaves(path, v.Elem(), fn)
	case reflect.Slice:
		fn(path, func() { v.SetLen(1) })
		leaves(path+"[]", v.Index(0), fn)
	case reflect.Map:
		k := v.MapKeys()[0]
		x := reflect.New(v.Type().Elem()).Elem()
		x.Set(v.MapIndex(k))
		fn(path, func() { v.SetMapIndex(k, reflect.Value{}) })
		switch v.Type() {
		case reflect.TypeFor[map[ID]*transaction](), reflect.TypeFor[map[key]*entry]():
			return // what is in there is in a list as well
		}
		leaves(path+"[]", x, func(path string, change func()) {
			fn(path, func() {
				change()
				v.SetMapIndex(k, x)
			})
		})
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(path+"."+v.Type().Field(i).Name, v.Field(i), fn)
		}
	default:
		panic(v.Kind())
	}
}

// unprinted are the fields on which nothing depends, or nothing but what is printed.
var unprinted = regexp.MustCompile(`^(` +
	`\.cfg\..*|` + // the caller's
	`\.(byID|byKey)|` + // the same as the lists
	`\.ones|\.horizons\[\]\.(origin\..*|finished.*)|` + // follow from finished, and the key
	`\.entries\[\]\.(heard|silent|failure)|` + // reports; of the failure, only whether there is one
	`.*\.(batch|Batch)\.size|` + // follows from the operations
	`.*\.Branches\[\]\.Work(\[\])?|` + // never set where it is not printed: see withoutWork
	`\.entries\[\]\.peers\[\]\.Work(\[\])?` +
	`)$`)

// Whatever changes in a core changes its fingerprint, whatever fields there are.
func TestFingerprintHasEverything(t *testing.T) {
	count := 0
	leaves("", reflect.ValueOf(full()).Elem(), func(string, func()) { count++ })
	require.Greater(t, count, 150)
	for i := range count {
		c := full()
		before := c.Fingerprint(nil)
		n := 0
		leaves("", reflect.ValueOf(c).Elem(), func(path string, change func()) {
			if n++; n != i+1 {
				return
			}
			change()
			if changed := string(c.Fingerprint(nil)) != string(before); changed == unprinted.MatchString(path) {
				t.Errorf("%s: in the fingerprint: %v", path, changed)
			}
		})
	}
}
