package surestorage

import (
	"context"
	"errors"
	"maps"
	"testing"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
)

var under = component.MustNewID("file_storage")

// memory is a storage of one client, and the host that has it. tests/collector runs the one on disk.
type memory struct {
	component.StartFunc
	component.ShutdownFunc
	values map[string]string
	writes int
	full   bool
	closed bool
}

func (m *memory) GetExtensions() map[component.ID]component.Component {
	return map[component.ID]component.Component{under: m}
}

func (m *memory) GetClient(context.Context, component.Kind, component.ID, string) (storage.Client, error) {
	return m, nil
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	if value, is := m.values[key]; is {
		return []byte(value), nil
	}
	return nil, nil
}

func (m *memory) Set(ctx context.Context, key string, value []byte) error {
	return m.Batch(ctx, storage.SetOperation(key, value))
}

func (m *memory) Delete(ctx context.Context, key string) error {
	return m.Batch(ctx, storage.DeleteOperation(key))
}

func (m *memory) Batch(ctx context.Context, operations ...*storage.Operation) error {
	writes := false
	for _, each := range operations {
		if m.full && each.Type != storage.Get {
			return storage.ErrStorageFull
		}
		switch each.Type {
		case storage.Get:
			each.Value, _ = m.Get(ctx, each.Key)
		case storage.Set:
			m.values[each.Key], writes = string(each.Value), true
		case storage.Delete:
			delete(m.values, each.Key)
			writes = true
		}
	}
	if writes {
		m.writes++
	}
	return nil
}

func (m *memory) Close(context.Context) error {
	m.closed = true
	return nil
}

func open(t *testing.T, store *memory) (storage.Client, error) {
	t.Helper()
	factory := NewFactory()
	config := factory.CreateDefaultConfig().(*Config)
	if config.Validate() == nil {
		t.Error("it is valid without a storage")
	}
	config.Storage = under
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	settings := extension.Settings{ID: component.NewID(factory.Type())}
	settings.Logger = zap.NewNop()
	made, err := factory.Create(context.Background(), settings, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Start(context.Background(), store); err != nil {
		t.Fatal(err)
	}
	return made.(*sure).GetClient(context.Background(), component.KindExporter, under, "logs")
}

// written is metadata as exporterhelper writes them: sizes, read and write index, what is under way.
func written(writeIndex uint64, packed bool, underWay ...uint64) string {
	var message, list []byte
	for field, value := range []uint64{30, 3000, 9} {
		message = protowire.AppendTag(message, protowire.Number(field+1), protowire.Fixed64Type)
		message = protowire.AppendFixed64(message, value)
	}
	message = protowire.AppendTag(message, writeIndexField, protowire.Fixed64Type)
	message = protowire.AppendFixed64(message, writeIndex)
	for _, index := range underWay {
		if !packed {
			message = protowire.AppendTag(message, underWayField, protowire.Fixed64Type)
			message = protowire.AppendFixed64(message, index)
		}
		list = protowire.AppendFixed64(list, index)
	}
	if packed {
		message = protowire.AppendTag(message, underWayField, protowire.BytesType)
		message = protowire.AppendBytes(message, list)
	}
	return string(message)
}

func TestWhatWasUnderWayIsAtTheEndAfterOneTransaction(t *testing.T) {
	for _, packed := range []bool{true, false} {
		store := &memory{values: map[string]string{
			metadataKey: written(12, packed, 4, 7, 8), "4": "four", "8": "eight", "9": "nine", "10": "ten", "11": "eleven",
		}}
		if _, err := open(t, store); err != nil {
			t.Fatal(err)
		}
		// Of 7 nothing is there.
		wanted := map[string]string{
			metadataKey: written(14, false), "9": "nine", "10": "ten", "11": "eleven", "12": "four", "13": "eight",
		}
		if !maps.Equal(store.values, wanted) || store.writes != 1 {
			t.Errorf("%d writes led to %q", store.writes, store.values)
		}
	}
}

func TestWhatNeedsNoMoveIsNotWritten(t *testing.T) {
	for _, values := range []map[string]string{
		{}, {metadataKey: written(3, false), "2": "two"},
		// Of a queue of before; and what is no message, or not one of the queue's, which the queue says itself.
		{"di": "\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00", "2": "two"},
		{metadataKey: "\xff\xff", "2": "two"}, {metadataKey: "\x2a\x03\x01\x02\x03", "2": "two"},
	} {
		store := &memory{values: maps.Clone(values)}
		if _, err := open(t, store); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(store.values, values) || store.writes != 0 {
			t.Errorf("%d writes led to %q", store.writes, store.values)
		}
	}
}

func TestAStorageThatTakesNothingIsNotGivenToTheQueue(t *testing.T) {
	store := &memory{values: map[string]string{metadataKey: written(3, true, 2), "2": "two"}, full: true}
	if _, err := open(t, store); !errors.Is(err, storage.ErrStorageFull) || !store.closed {
		t.Error(err)
	}
}
