package paxos

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/transport/inproc"
)

// Every field of Config reaches the runtime.
func TestConfigIsHandedOn(t *testing.T) {
	network, err := inproc.New(t.Context(), inproc.Config{})
	require.NoError(t, err)
	transport, err := network.Open(1)
	require.NoError(t, err)
	defer transport.Close()
	var cfg Config
	fields := reflect.ValueOf(&cfg).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i) + 1)
		case reflect.Uint64, reflect.Uint8:
			f.SetUint(uint64(i) + 1)
		case reflect.String:
			f.SetString("name")
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	cfg.Transport = transport
	cfg.SetAddress = func(uint64, string) {}
	settings := reflect.ValueOf(cfg.settings())
	for i := range settings.NumField() {
		field := settings.Type().Field(i)
		switch have, want := settings.Field(i), fields.FieldByName(field.Name); field.Type.Kind() {
		case reflect.Func:
			require.Equal(t, want.Pointer(), have.Pointer(), field.Name)
		default:
			require.Equal(t, want.Interface(), have.Interface(), field.Name)
		}
	}
	require.Equal(t, reflect.TypeFor[replica.Settings]().NumField()+2, fields.NumField(), "Quorums and Priority are all there is beside")
	cfg.Quorums.Phase2 = 2
	require.Equal(t, cfg.Priority, cfg.protocol().Priority)
	require.Equal(t, 2, cfg.protocol().Quorums.Phase2)
}
