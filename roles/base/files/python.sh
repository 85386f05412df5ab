# The full Python that Ansible's modules need, on a box that has at most python3-minimal.
# $1: seconds to wait for a lock.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C.UTF-8
wait_for_lock="-o DPkg::Lock::Timeout=$1"
# A run that was cut off in the middle of an installation is finished first.
dpkg --configure -a >/dev/null 2>&1
# apt's own waiting is for dpkg's lock alone: for that of the package lists it has to be asked anew.
waited=0
until said=$(apt-get -qq update 2>&1); do
  case $said in
  *'Could not get lock'*) [ "$waited" -lt "$1" ] && sleep 1 && waited=$((waited + 1)) && continue ;;
  esac
  echo "$said"
  exit 1
done
# An archive that cannot be reached is a warning to apt; it is what explains the next failure.
echo "$said"
apt-get $wait_for_lock -qq -y --no-install-recommends install python3 python3-apt
