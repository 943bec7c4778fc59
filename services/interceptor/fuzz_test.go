package interceptor

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// FuzzBody guarantees that the body of a call is understood, or that its fault
// is kept in words that can be told, and that nothing breaks the reader.
func FuzzBody(f *testing.F) {
	raw, err := proto.Marshal(&tcoderv1.SyncRequest{Hello: &tcoderv1.Hello{WorkerId: "w", Slots: 1}, Session: 7})
	require.NoError(f, err)
	f.Add(raw, false)
	f.Add([]byte(`{"hello":{"workerId":"w","slots":1},"session":"7","unknown":[{}]}`), true)
	f.Add([]byte(`{"session":"x"}`), true)
	f.Add([]byte(`{"hello":{"workerId":"`+"\xff"+`"}}`), true)
	f.Add([]byte{0xff, 0xff, 0xff}, false)
	f.Add([]byte(`[[[[[[[[`), true)

	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		var (
			read, plain tcoderv1.SyncRequest
			wrong       error
		)

		if isJSON {
			require.NoError(t, jsonCodec{name: "json"}.Unmarshal(data, &read))

			wrong = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, &plain)
		} else {
			require.NoError(t, binaryCodec{}.Unmarshal(data, &read))

			wrong = proto.Unmarshal(data, &plain)
		}

		text, faulty := decodeFault(&read)
		if wrong == nil {
			require.True(t, proto.Equal(&plain, &read))

			return
		}

		require.True(t, faulty)
		require.True(t, utf8.ValidString(text))
		require.LessOrEqual(t, len(text), maxFaultBytes+len("..."))
		require.Nil(t, read.GetHello(), "nothing of it is used")
	})
}
