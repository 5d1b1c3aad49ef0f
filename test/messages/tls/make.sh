#!/bin/sh
# Certificates for the TLS test: an authority, a server for 127.0.0.1, a client. Valid for a hundred years; the keys
# protect nothing but that test. Made with OpenSSL 3.0: sh make.sh
set -eu
cd "$(dirname "$0")"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 36500 -subj "/CN=BlipFleet test authority" \
  -keyout ca-key.pem -out ca.pem
for name in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=BlipFleet test $name" \
    -keyout "$name-key.pem" -out "$name.csr"
  printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' > extensions
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca-key.pem -days 36500 -extfile extensions -out "$name.pem"
done
rm -f ./*.csr extensions ca-key.pem ca.srl
