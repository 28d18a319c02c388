package door

import (
	"fmt"
	"regexp"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zapgrpc"
	"google.golang.org/grpc/grpclog"
)

// Of grpc-go 1.81: Server.newHTTP2Transport's line around that of NewServerTransport. The address is quoted once, or in
// a quoted text.
var handshake = regexp.MustCompile(`Server\.Serve failed to create ServerTransport: .*ServerHandshake\(\\?"(.*?)\\?"\) failed: (.*?)"?$`)

// Of crypto/x509, when a certificate has expired: another reason each second.
var clock = regexp.MustCompile(`current time \S+ is `)

// What is quoted within the line the other side chose (crypto/tls: the protocols that it offers, up to 64 KiB), and it may
// choose something else each time.
const quoted, longest = `\"`, 200

// listener is grpc-go's logger as the Collector sets it, warnings and errors, but that it hears of handshakes.
type listener struct {
	grpclog.LoggerV2
	book *book
}

func newListener(book *book) grpclog.LoggerV2 {
	quiet := book.log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		warnings, err := zapcore.NewIncreaseLevelCore(core, zapcore.WarnLevel)
		if err != nil {
			return core // it says less than that already
		}
		return warnings
	}))
	return &listener{zapgrpc.NewLogger(quiet.With(zap.Bool("grpc_log", true))), book}
}

// V is grpc-go's own measure of how much to say, and no level: zapgrpc takes it for one.
func (*listener) V(level int) bool {
	return level <= 0
}

// Infoln is what grpc-go's components call.
func (l *listener) Infoln(words ...any) {
	if found := handshake.FindStringSubmatch(trimmed(words)); found != nil {
		reason, _, _ := strings.Cut(clock.ReplaceAllString(found[2], ""), quoted)
		l.book.unshaken(host(found[1]), reason[:min(len(reason), longest)])
	}
}

func trimmed(words []any) string {
	line := fmt.Sprintln(words...)
	return line[:len(line)-1]
}
