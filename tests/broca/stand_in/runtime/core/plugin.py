"""The manager of plugins: how they are found, made, started and stopped."""

import importlib.util
import inspect
import logging
import sys
from pathlib import Path

from plugins import Plugin

log = logging.getLogger(__name__)


class PluginManager:
    """What goes wrong with one plugin is a line in the log, and the others go on."""

    def __init__(self):
        self._plugins = {}
        self._handlers = {}

    async def discover_plugins(self, plugins_dir="plugins", config=None):
        for folder in Path(plugins_dir).iterdir():
            file = folder / "plugin.py"
            if folder.name.startswith("_") or not file.exists():
                continue
            try:
                self._load(file)
                plugin = self._plugins[folder.name]
                if hasattr(plugin, "apply_settings"):
                    plugin.apply_settings((config or {}).get(folder.name, {}))
            except Exception as error:
                log.warning("Skipping plugin %s: %s", folder.name, error)

    def _load(self, file):
        parts = file.resolve().parts
        where = parts[parts.index("plugins") :] if "plugins" in parts else parts[-1:]
        name = ".".join(where).removesuffix(".py")
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        for value in module.__dict__.values():
            is_plugin = isinstance(value, type) and issubclass(value, Plugin) and value != Plugin
            if is_plugin and value.__module__ == module.__name__:
                self._take(value())
                return
        raise ValueError(f"No plugin class found in {file}")

    def _take(self, plugin):
        handler = plugin.get_message_handler()
        if not inspect.iscoroutinefunction(handler):
            raise ValueError("A handler must be async")
        if len(inspect.signature(handler).parameters) < 3:
            raise ValueError("A handler takes the response, the profile and the message's id")
        self._handlers[plugin.get_platform()] = handler
        self._plugins[plugin.get_name()] = plugin

    async def start(self):
        for name, plugin in self._plugins.items():
            try:
                await plugin.start()
            except Exception as error:
                log.error("Failed to start plugin %s: %s", name, error)

    async def stop(self):
        for name, plugin in self._plugins.items():
            try:
                await plugin.stop()
            except Exception as error:
                log.error("Failed to stop plugin %s: %s", name, error)

    def get_platform_handler(self, platform):
        return self._handlers.get(platform)
