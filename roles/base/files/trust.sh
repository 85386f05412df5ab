# Bring the box's trust store in line with our files in its folder of local certificates.
# $1: apply or check. It looks at the store itself, so that a run that was cut off between the
# files and the store is finished by the next one.
listed=$(cd /usr/local/share/ca-certificates && ls | sed -n 's/^\(roost-.*\)\.crt$/\1/p')
trusted=$(cd /etc/ssl/certs 2>/dev/null && ls | sed -n 's/^\(roost-.*\)\.pem$/\1/p')
# Without the package ca-certificates there is no store; its installation reads the folder.
[ "$listed" = "$trusted" ] || ! command -v update-ca-certificates >/dev/null && exit 0
echo "changed: /etc/ssl/certs"
[ "$1" = check ] || update-ca-certificates --fresh >/dev/null
