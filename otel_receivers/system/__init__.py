"""The host under the mail servers: its CPUs, memory, disks, filesystems, network and processes."""
