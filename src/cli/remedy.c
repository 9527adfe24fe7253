/* SPDX-License-Identifier: MIT */
#include "remedy.h"

#include <stdarg.h>
#include <stdio.h>

static void __attribute__((format(printf, 2, 3))) add(struct pl_remedies *remedies, const char *format, ...)
{
	va_list arguments;

	if (remedies->count == PL_REMEDY_LINES)
		return;
	va_start(arguments, format);
	(void)vsnprintf(remedies->lines[remedies->count++], PL_REMEDY_LINE, format, arguments);
	va_end(arguments);
}

/* A new container beside the program's sees it under the number that it has there. */
static void add_containers(struct pl_remedies *ret, const struct pl_patient *patient, const char *docker,
	const char *profile)
{
	int pid = (int)patient->process->own_pid;

	add(ret, "docker run -it --rm --pid=container:NAME %s IMAGE pyleak attach %d", docker, pid);
	if (profile)
		add(ret, "kubectl debug -it POD --image=IMAGE --target=CONTAINER --profile=%s -- pyleak attach %d", profile, pid);
}

void pl_remedies_spell(unsigned int remedies, const struct pl_patient *patient, struct pl_remedies *ret)
{
	const struct pl_process *process = patient->process;
	const char *sudo = patient->root ? "" : "sudo ";
	bool on_host = remedies & PL_REMEDY_HOST && !patient->contained;
	int pid = (int)process->pid;

	ret->count = 0;
	if (!patient->root && (remedies & PL_REMEDY_ROOT || on_host))
		add(ret, "sudo pyleak attach %d", pid);
	if (remedies & PL_REMEDY_ITS_USER)
		add(ret, "%ssetpriv --reuid=%u --regid=%u --clear-groups pyleak attach %d", sudo, process->uid, process->gid, pid);
	if (remedies & PL_REMEDY_YAMA)
		add(ret, "%ssysctl kernel.yama.ptrace_scope=0", sudo);
	/* Outside of containers root has all that these give. */
	if (!patient->contained)
		return;
	if (remedies & PL_REMEDY_CAPABILITY)
		add_containers(ret, patient, "--cap-add=SYS_PTRACE", "general");
	if (remedies & PL_REMEDY_PRIVILEGED)
		add_containers(ret, patient, "--privileged", "sysadmin");
	if (remedies & PL_REMEDY_UNCONFINED)
		add_containers(ret, patient,
			"--cap-add=SYS_PTRACE --security-opt seccomp=unconfined --security-opt apparmor=unconfined", NULL);
	if (remedies & PL_REMEDY_HOST)
		add(ret, "sudo pyleak ps    # on the host, where the process has another PID");
}
