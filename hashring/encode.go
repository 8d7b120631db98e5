package hashring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// The encoding. Numbers are unsigned varints unless said otherwise; fixed ones are
// little-endian. There is one encoding of a ring, and no other is accepted.
//
//	magic "HRNG", 1 byte format version (1)
//	ring version
//	— from here on, what the fingerprint covers —
//	1 byte algorithm, its parameters
//	8 bytes weight unit (IEEE 754), MaxPerZone
//	number of zones; each: length, bytes. In the order in which nodes name them.
//	number of nodes; each, by name:
//	    bytes in common with the name before (32 at most), bytes more, these bytes
//	    1 byte flags: 1 draining, 2 has a weight other than 1
//	    8 bytes weight (IEEE 754) if so
//	    number of its zone, if there are zones
//	state of the algorithm: what history decides. Jump: the nodes by bucket. Asura: the
//	    levels, the slots of each node. Allocated: the number of points; each: distance
//	    from the one before, number of its node.
//	— up to here —
//	8 bytes hash of everything before
const (
	magic         = "HRNG"
	formatVersion = 1
	flagDraining  = 1
	flagWeight    = 2
	maxCommon     = 32 // bytes that a name takes over: more would let a short encoding describe much text
)

// AppendBinary appends the encoding of the ring, and never fails. It holds the names
// of the nodes, not other contents of their IDs.
func (r *Ring[N]) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, magic...)
	b = append(b, formatVersion)
	b = binary.AppendUvarint(b, r.version)
	b = r.appendBody(b)
	return binary.LittleEndian.AppendUint64(b, HashBytes(b[start:])), nil
}

// MarshalBinary returns the encoding of the ring, and never fails. [Decode] reads it.
func (r *Ring[N]) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

func (r *Ring[N]) appendBody(b []byte) []byte {
	b = append(b, r.config.Algorithm.code())
	for _, p := range r.config.Algorithm.params() {
		b = binary.AppendUvarint(b, p)
	}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(r.config.WeightUnit))
	b = binary.AppendUvarint(b, uint64(r.config.MaxPerZone))
	numbers := make(map[string]uint64)
	var paths []string
	for i := range r.list {
		zone := r.list[i].zone
		if _, ok := numbers[zone]; !ok && zone != "" {
			numbers[zone] = uint64(len(paths))
			paths = append(paths, zone)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(paths)))
	for _, p := range paths {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	b = binary.AppendUvarint(b, uint64(len(r.list)))
	before := ""
	for i := range r.list {
		m := &r.list[i]
		common := 0
		for common < min(len(before), len(m.name), maxCommon) && before[common] == m.name[common] {
			common++
		}
		b = binary.AppendUvarint(b, uint64(common))
		b = binary.AppendUvarint(b, uint64(len(m.name)-common))
		b = append(b, m.name[common:]...)
		before = m.name
		flags := byte(0)
		if m.draining {
			flags |= flagDraining
		}
		if r.weights[i] != 1 {
			flags |= flagWeight
		}
		b = append(b, flags)
		if r.weights[i] != 1 {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(r.weights[i]))
		}
		if len(paths) > 0 {
			b = binary.AppendUvarint(b, numbers[m.zone])
		}
	}
	return r.placed.appendState(b)
}

// DecodeConfig is how an encoding is read.
type DecodeConfig[N any] struct {
	// Parse returns the node that has a name. Required unless the nodes are strings or
	// integers. An error of Parse ends the decoding.
	Parse func(name string) (N, error)

	// MaxTableBytes is how large the tables of the ring may get, in bytes. Default
	// 64 MiB. A short encoding may describe a large ring: what does not come from those
	// whom one trusts should be held to the size that is expected.
	MaxTableBytes int
}

// Decode returns the ring that an encoding describes. While it reads, it allocates
// memory in proportion to the length of data; then, for a description that is sound,
// the tables that it describes, up to MaxTableBytes. data is not retained. Errors:
// [DecodeError], [ErrTooLarge], [ConfigError] if Parse is missing, and what Parse
// returns.
func Decode[N any](data []byte, config DecodeConfig[N]) (*Ring[N], error) {
	if config.MaxTableBytes == 0 {
		config.MaxTableBytes = 64 << 20
	}
	if config.MaxTableBytes < 0 {
		return nil, &ConfigError{"DecodeConfig.MaxTableBytes", "negative: give a number of bytes, or 0 for 64 MiB"}
	}
	if config.Parse == nil {
		t := reflect.TypeFor[N]()
		if k := t.Kind(); t.Implements(reflect.TypeFor[Named]()) || k != reflect.String && (k < reflect.Int || k > reflect.Uint64) {
			return nil, &ConfigError{"DecodeConfig.Parse", fmt.Sprintf("nil: a name alone makes no %s", t)}
		}
		config.Parse = parse[N]
	}
	d := &decoder{data: data, tables: config.MaxTableBytes}
	r, err := decode(d, config.Parse)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// parse makes a string or an integer of its name.
func parse[N any](name string) (id N, err error) {
	v := reflect.ValueOf(&id).Elem()
	switch {
	case v.Kind() == reflect.String:
		v.SetString(name)
	case v.CanInt():
		var n int64
		n, err = strconv.ParseInt(name, 10, v.Type().Bits())
		v.SetInt(n)
	default:
		var n uint64
		n, err = strconv.ParseUint(name, 10, v.Type().Bits())
		v.SetUint(n)
	}
	return id, err
}

// decoder reads an encoding. After the first mistake, everything it reads is zero.
type decoder struct {
	data   []byte
	at     int
	tables int // bytes that tables may take
	err    error
}

func (d *decoder) fail(reason string) {
	if d.err == nil {
		d.err = &DecodeError{d.at, reason}
	}
}

func (d *decoder) left() int { return len(d.data) - d.at }

func (d *decoder) bytes(n int, what string) []byte {
	if d.err == nil && n > d.left() {
		d.fail("ends within a " + what)
	}
	if d.err != nil {
		return nil
	}
	d.at += n
	return d.data[d.at-n : d.at]
}

func (d *decoder) byte(what string) byte {
	if b := d.bytes(1, what); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) float(what string) float64 {
	if b := d.bytes(8, what); len(b) == 8 {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) uvarint(what string) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.data[d.at:])
	if n <= 0 {
		d.fail("ends within a " + what + ", or it is too large")
		return 0
	}
	d.at += n
	return v
}

// count reads how many of something follow, each of which takes at least so many
// bytes.
func (d *decoder) count(what string, most, least int) int {
	v := d.uvarint("number of " + what)
	if d.err == nil && (v > uint64(most) || v > uint64(d.left()/least)) {
		d.fail("more " + what + " than there may be, or than fit")
	}
	if d.err != nil {
		return 0
	}
	return int(v)
}

// text reads a string.
func (d *decoder) text(what string, most int) string {
	n := d.uvarint("length of a " + what)
	if d.err == nil && n > uint64(most) {
		d.fail("a " + what + " that is too long")
	}
	return string(d.bytes(int(n&(1<<20-1)), what))
}

func (d *decoder) algorithm() (a Algorithm) {
	small := func(what string) int {
		v := d.uvarint(what)
		if v > 1<<30 {
			d.fail("a " + what + " that is too large")
			return 0
		}
		if v == 0 {
			d.fail("a " + what + " of zero")
		}
		return int(v)
	}
	switch code := d.byte("algorithm"); code {
	case 1:
		a = Points{PerNode: small("number of points")}
	case 2:
		a = Jump{}
	case 3:
		a = Rendezvous{}
	case 4:
		a = Maglev{Slots: small("number of slots")}
	case 5:
		a = RendezvousTable{Slots: small("number of slots")}
	case 6:
		a = Asura{}
	case 7:
		a = MultiProbe{Probes: small("number of probes")}
	case 8:
		a = Allocated{PerNode: small("number of points"), Tolerance: math.Float64frombits(d.uvarint("tolerance"))}
	default:
		d.fail(fmt.Sprintf("algorithm %d is unknown: written by a later version, perhaps", code))
		return nil
	}
	if d.err == nil {
		if err := a.check(); err != nil {
			d.fail(err.Error())
		}
	}
	return a
}

func decode[N any](d *decoder, parse func(string) (N, error)) (*Ring[N], error) {
	if len(d.data) < len(magic)+1 || string(d.data[:len(magic)]) != magic {
		d.fail("not the encoding of a ring")
		return nil, d.err
	}
	if v := d.data[len(magic)]; v != formatVersion {
		d.at = len(magic)
		d.fail(fmt.Sprintf("format version %d, this library reads %d", v, formatVersion))
		return nil, d.err
	}
	end := len(d.data) - 8
	if end < len(magic)+1 || HashBytes(d.data[:end]) != binary.LittleEndian.Uint64(d.data[end:]) {
		d.at = max(0, end)
		d.fail("the checksum does not match: truncated or damaged")
		return nil, d.err
	}
	whole := d.data
	d.data, d.at = d.data[:end], len(magic)+1

	r := &Ring[N]{version: d.uvarint("version")}
	r.config.Algorithm = d.algorithm()
	r.config.WeightUnit = d.float("weight unit")
	if v := d.uvarint("MaxPerZone"); v >= 1 && v <= math.MaxInt32 {
		r.config.MaxPerZone = int(v)
	} else {
		d.fail("MaxPerZone out of bounds")
	}
	if u := r.config.WeightUnit; d.err == nil && (!(u > 0) || math.IsInf(u, 0)) {
		d.fail("a weight unit that is no positive number")
	}
	zones := make([]string, d.count("zones", MaxNodes, 2))
	for i := range zones {
		zones[i] = d.text("zone", MaxName)
	}
	n := d.count("nodes", MaxNodes, 3)
	if d.err != nil {
		return nil, d.err
	}
	if n == 0 {
		d.fail("no nodes")
		return nil, d.err
	}
	var fresh []int
	before := ""
	weight := 0.0
	for i := range n {
		common := d.uvarint("length in common")
		if d.err == nil && common > uint64(min(len(before), maxCommon)) {
			d.fail("more in common with the name before than it has, or than is allowed")
		}
		if d.err != nil {
			return nil, d.err
		}
		more := d.uvarint("length of a name")
		if d.err == nil && common+more > MaxName || more > MaxName {
			d.fail("a name that is too long")
		}
		rest := d.bytes(int(more&(1<<20-1)), "name")
		if d.err != nil {
			return nil, d.err
		}
		name := before[:common] + string(rest)
		if i > 0 && name <= before {
			d.fail("names out of order")
		}
		before = name
		flags := d.byte("flags")
		if flags > flagDraining|flagWeight {
			d.fail("unknown flags")
		}
		given := 1.0
		if flags&flagWeight != 0 {
			given = d.float("weight")
		}
		m := member{name: name, seed: HashString(name), weight: given / r.config.WeightUnit, draining: flags&flagDraining != 0}
		if len(zones) > 0 {
			if z := d.uvarint("zone"); z < uint64(len(zones)) {
				m.zone = zones[z]
			} else {
				d.fail("a zone that is not there")
			}
		}
		if d.err != nil {
			return nil, d.err
		}
		if err := checkMember(&m); err != nil {
			d.fail(err.Error())
			return nil, d.err
		}
		if _, err := checkName(name); err != nil {
			d.fail(err.Error())
			return nil, d.err
		}
		fresh = append(fresh, i)
		r.list = append(r.list, m)
		r.weights = append(r.weights, given)
		weight += m.takes()
	}
	if err := checkMembers(r.list, fresh); err != nil {
		d.fail(err.Error())
		return nil, d.err
	}
	for i := range r.list {
		id, err := parse(r.list[i].name)
		if err != nil {
			return nil, fmt.Errorf("hashring: node %q: %w", r.list[i].name, err)
		}
		if name, err := nameOf(id); err != nil || name != r.list[i].name {
			return nil, &NodeError{Node: r.list[i].name, Err: ErrName, Reason: fmt.Sprintf("was read as a node of the name %q", name)}
		}
		r.ids = append(r.ids, id)
	}
	if cost := r.config.Algorithm.cost(n, weight); cost > float64(d.tables) {
		return nil, fmt.Errorf("%w: tables of up to %.0f bytes: DecodeConfig.MaxTableBytes is %d", ErrTooLarge, cost, d.tables)
	}
	if err := r.restore(d); err != nil {
		return nil, err
	}
	if d.left() > 0 {
		d.fail("goes on after its end")
		return nil, d.err
	}
	r.finish()
	// There is one encoding of each ring.
	again, _ := r.AppendBinary(make([]byte, 0, len(whole)))
	if !bytes.Equal(again, whole) {
		d.fail("not as a ring is encoded: numbers or parts that are longer than they need be")
		return nil, d.err
	}
	return r, nil
}

// restore places the members as the state says.
func (r *Ring[N]) restore(d *decoder) (err error) {
	switch a := r.config.Algorithm.(type) {
	case Jump:
		if err := equalOnly(r.list, "Jump"); err != nil {
			d.fail(err.Error())
			return d.err
		}
		r.placed, err = restoreJump(d, r.list)
	case Asura:
		r.placed, err = restoreAsura(d, r.list)
	case Allocated:
		r.placed, err = restoreAllocated(d, r.list, a)
	default:
		if d.left() == 0 {
			r.placed, err = a.place(r.list)
		}
	}
	if err == nil && r.placed == nil {
		d.fail("goes on after its end")
		return d.err
	}
	return err
}
